"""The asking stage: looks in, looks with all their answers out, as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from think2seg.engine.looks import Look
from think2seg.engine.read import Work
from think2seg.engine.timings import Timings
from think2seg.prompting import Answer, Ask, Prompter, Reply, answers_of, parse_answer


@dataclass(slots=True, kw_only=True, eq=False)
class Answers:
    """A look and what was said about it."""

    work: Work
    look: Look | None
    """None for a block without any."""
    questions: tuple[int, ...] = ()
    said: dict[int, tuple[Reply, Answer]] = field(default_factory=dict)
    """Question → reply, and the answer in pixels of the look."""
    last: bool = False
    """Whether every look of the block now has its answers."""
    seconds: float = 0.0
    """The look's share of the prompter's time."""


class Asking:
    """Sends looks to the prompter; a whole tile whose answer was cut off is asked about again in quarters."""

    def __init__(self, prompter: Prompter, questions: tuple[str, ...], timings: Timings) -> None:
        self._prompter, self._questions, self._timings = prompter, questions, timings
        self._fresh: deque[Answers] = deque()
        self._again: deque[Answers] = deque()
        self._done: list[Answers] = []
        self._told_s = 0.0

    def answered(self, works: Iterator[Work]) -> Iterator[Answers]:
        """Looks of all `works` in the order in which their last answers come; works are taken when there is room."""
        while (first := self._next(works)) is not None:
            yield from self._stream(first, works)
        yield from self._take_done()

    def _next(self, works: Iterator[Work]) -> Answers | None:
        """The look to ask about next: one that is asked again, else a new one."""
        while not self._again and not self._fresh:
            work = next(works, None)
            if work is None:
                return None
            if not work.looks:
                self._done.append(Answers(work=work, look=None, last=True))
            self._fresh.extend(Answers(work=work, look=look, questions=work.questions) for look in work.looks)
        return (self._again or self._fresh).popleft()

    def _stream(self, first: Answers, works: Iterator[Work]) -> Iterator[Answers]:
        under_way: dict[int, Answers] = {}

        def asks() -> Iterator[Ask]:
            coming: Answers | None = first
            for number in count():
                if coming is None:
                    return
                assert coming.look is not None
                under_way[number] = coming
                yield Ask(tile=coming.look.shown, questions=coming.questions)
                with self._timings.waiting("prompt"):
                    coming = self._next(works)

        told = answers_of(self._prompter, asks(), self._questions)
        while True:
            with self._timings.computing("prompt"):
                one = next(told, None)
            if one is not None:
                answers = under_way[one.ask]
                self._note(answers, one.question, one.reply)
                if len(answers.said) == len(answers.questions):
                    self._done.append(self._whole(under_way.pop(one.ask)))
            yield from self._take_done()
            if one is None:
                return

    def _note(self, answers: Answers, question: int, reply: Reply) -> None:
        look, prompter = answers.look, self._prompter
        assert look is not None
        answer = parse_answer(
            reply.text,
            frame_px=prompter.frame_px,
            finish=reply.finish,
            unknown_reasoning=prompter.unknown_reasoning,
        )
        answers.said[question] = reply, look.answered(answer, prompter.frame_px)
        if answer.status == "truncated" and not look.part:
            quarters = [Answers(work=answers.work, look=part, questions=(question,)) for part in look.quarters()]
            self._again.extend(quarters)
            answers.work.open += len(quarters)

    def _whole(self, answers: Answers) -> Answers:
        """A look that has all its answers, with its share of the time."""
        answers.work.open -= 1
        answers.last = not answers.work.open
        before, self._told_s = self._told_s, self._timings.seconds("prompt")
        answers.seconds = self._told_s - before
        return answers

    def _take_done(self) -> Iterator[Answers]:
        done, self._done = self._done, []
        return iter(done)
