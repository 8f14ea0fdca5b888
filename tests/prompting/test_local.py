"""The prompter in this process, on small trained weights and on a checkpoint in the published layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from suites.prompter import QUESTION, PrompterSuite
from support.pictures import lake_tile

from think2seg.config import LocalPrompter as LocalConfig
from think2seg.errors import ModelError
from think2seg.prompting import load_prompter, template_for
from think2seg.prompting.local import LocalPrompter


@pytest.fixture(scope="module")
def small(pair: Path) -> LocalPrompter:
    return LocalPrompter(pair / "prompter", digest="0123456789abcdef", batch=2, dtype="float32", device="cpu")


class TestSmall(PrompterSuite):
    @pytest.fixture
    def prompter(self, small: LocalPrompter) -> LocalPrompter:
        return small


def test_an_answer_at_the_limit_says_so(small: LocalPrompter, pair: Path) -> None:
    short = LocalPrompter(pair / "prompter", digest="0123456789abcdef", batch=1, max_new_tokens=7, device="cpu")
    (cut,), (whole,) = short.ask([lake_tile()], QUESTION), small.ask([lake_tile()], QUESTION)
    assert (cut.finish, cut.tokens) == ("length", 7)
    assert whole.finish == "stop"
    assert whole.text.startswith(cut.text)
    assert "<|" not in whole.text


def test_the_monitor_overrides_what_the_folder_says(pair: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.yaml"
    template.write_text("name: own\nsystem: You see from above.\nuser: 'Find {question}.'\n")
    config = LocalConfig(batch=2, max_new_tokens=5, template=str(template), device="cpu")
    prompter = load_prompter(config, pair / "prompter", digest="d")
    assert (prompter.batch, prompter.template.name) == (2, "own")
    assert template_for(config, pair / "prompter") == prompter.template
    (reply,) = prompter.ask([lake_tile()], QUESTION)
    assert reply.tokens == 5


def test_a_folder_without_a_chat_template_is_refused(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "prompter", tmp_path / "prompter")
    (tmp_path / "prompter" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template"):
        LocalPrompter(tmp_path / "prompter", digest="d", device="cpu")


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"models\.prompter\.path"):
        LocalPrompter(tmp_path, digest="d", device="cpu")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models\.prompter\.path"):
        LocalPrompter(tmp_path, digest="d", device="cpu")


def test_a_broken_description_is_refused(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "prompter", tmp_path / "prompter")
    (tmp_path / "prompter" / "think2seg.json").write_text('{"frame_px": "large"}')
    with pytest.raises(ModelError, match="frame_px"):
        LocalPrompter(tmp_path / "prompter", digest="d", device="cpu")
