from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.archive_run import BLOCKS, PROMPTER, SEGMENTER, SPEC, acquisition, plan_of, run, write

from think2seg.cube import Failure, Receipt, open_or_create, read_receipts, reusable
from think2seg.cube.store import CubeStore
from think2seg.plan import BlockState, bundle


def test_receipt_survives_json(tmp_path: Path) -> None:
    cube = open_or_create(tmp_path / "c", SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    job = bundle(plan_of([acquisition("2014-07-20")]).work, 1)[0].jobs[0]
    receipt = replace(
        write(cube.writer(1), job),
        failures=(Failure(item="i", block=job.block, reason="404", message='gone\n"quoted" ünïcode'),),
        seam={"edge": 3},
    )
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert "\n" not in receipt.to_json()


def test_receipts_of_a_step_outlive_its_publication(tmp_path: Path) -> None:
    uri = tmp_path / "c"
    run(uri, [acquisition("2014-07-20")])
    receipts = read_receipts(CubeStore(uri), 0)
    assert [receipt.block for receipt in receipts] == list(BLOCKS)
    assert not list(uri.glob("_records/receipts/*/*"))


def test_only_matching_receipts_are_used_again(tmp_path: Path) -> None:
    cube = open_or_create(tmp_path / "c", SPEC, prompter=PROMPTER, segmenter=SEGMENTER)
    plan = plan_of([acquisition("2014-07-20")])
    jobs = bundle(plan.work, 9)[0].jobs
    receipts = [write(cube.writer(1), job) for job in jobs[:3]]
    assert cube.unpublished_receipts() == tuple(receipts)

    def again(receipt: Receipt, **weights: str) -> int:
        return len(reusable([receipt], plan.work, **({"prompter": PROMPTER, "segmenter": SEGMENTER} | weights)))

    first = receipts[0]
    assert again(first) == 1
    assert again(first, prompter="x") == again(first, segmenter="x") == 0
    for other in (
        replace(first, step=1),
        replace(first, acquisition="x"),
        replace(first, revision=1),
        replace(first, fingerprint="x"),
        replace(first, block=(9, 9)),
        replace(first, state=BlockState.FAILED),
    ):
        assert again(other) == 0
