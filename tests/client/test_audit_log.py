"""The chain on disk: what it says, and that nothing in it can be changed, moved or taken away unseen."""

import os
import shutil
import stat
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from client.audit_line import AuditEntry, AuditKind, AuditOutcome, parse_line
from client.audit_log import HEAD, NEWEST, AuditLog, segments
from client.audit_verification import read_lines, verify_log
from gmmas_runtime.keys import load_node_key, make_node_key
from gmmas_schema.errors import ReasonCode, TrustError

KEY = ec.generate_private_key(ec.SECP384R1())
PUBLIC = KEY.public_key()
LINES = 7


def entry(number: int = 1) -> AuditEntry:
    return AuditEntry(
        kind=AuditKind.TRAIN,
        run="run-1",
        round=number,
        request="a" * 64,
        verdict="allowed",
        outcome=AuditOutcome.ANSWERED,
        answer="b" * 64,
        bytes_out=1000 + number,
    )


def write_log(folder: Path, *, lines: int = LINES, segment_bytes: int = 1500) -> Path:
    log = AuditLog(folder, KEY, segment_bytes=segment_bytes)
    for number in range(1, lines + 1):
        log.append(entry(number))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole log of several files; tests take copies."""
    return write_log(tmp_path_factory.mktemp("audit") / "log")


def test_lines_say_what_was_asked_and_stay_in_order_over_files(written: Path) -> None:
    lines = list(read_lines(written))
    assert len(segments(written)) > 2
    assert [line.n for line in lines] == list(range(1, LINES + 1))
    assert [line.round for line in lines] == list(range(1, LINES + 1))
    assert lines[0].previous == "0" * 64
    assert lines[2].bytes_out == 1003
    verdict = verify_log(written, PUBLIC)
    assert verdict.is_whole
    assert verdict.lines == LINES


def test_only_the_owner_may_read_it(written: Path) -> None:
    assert stat.S_IMODE(written.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in written.iterdir()} == {0o600}


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    assert verify_log(tmp_path, PUBLIC).is_whole


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_changed_byte_is_found_at_its_line(written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = shutil.copytree(written, tmp_path_factory.mktemp("changed") / "log")
    path = data.draw(st.sampled_from(segments(folder)))
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    verdict = verify_log(folder, PUBLIC)
    # The last end of line of all is no part of any line: without it nothing is missing.
    if path.name == NEWEST and place == len(raw) - 1:
        return
    assert not verdict.is_whole
    line = written.joinpath(path.name).read_bytes()[:place].count(b"\n") + 1
    first = parse_line(written.joinpath(path.name).read_bytes().split(b"\n")[0])
    assert first is not None
    assert verdict.lines == first.n + line - 2
    assert verdict.where == f"{path.name}, line {line}"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_line_taken_away_swapped_or_doubled_is_found(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = shutil.copytree(written, tmp_path_factory.mktemp("moved") / "log")
    rows = [(path, raw) for path in segments(folder) for raw in path.read_bytes().splitlines(keepends=True)]
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(st.integers(0, len(rows) - 1).filter(lambda n: n != place))
    match data.draw(st.sampled_from(["remove", "swap", "double"])):
        case "remove":
            changed = rows[:place] + rows[place + 1 :]
        case "swap":
            changed = list(rows)
            changed[place], changed[other] = (rows[place][0], rows[other][1]), (rows[other][0], rows[place][1])
        case _:
            changed = [*rows[: place + 1], rows[place], *rows[place + 1 :]]
    for path in segments(folder):
        path.write_bytes(b"".join(raw for owner, raw in changed if owner == path))
    assert not verify_log(folder, PUBLIC).is_whole


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_cut_is_found(written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = shutil.copytree(written, tmp_path_factory.mktemp("cut") / "log")
    raws = [path.read_bytes() for path in segments(folder)]
    keep = data.draw(st.integers(0, sum(map(len, raws)) - 2))
    for path, raw in zip(segments(folder), raws, strict=True):
        path.write_bytes(raw[:keep])
        keep = max(0, keep - len(raw))
    assert not verify_log(folder, PUBLIC).is_whole
    append_is_refused(folder)


def test_a_file_taken_away_is_found(written: Path, tmp_path: Path) -> None:
    for path in segments(written):
        folder = shutil.copytree(written, tmp_path / path.name)
        (folder / path.name).unlink()
        assert not verify_log(folder, PUBLIC).is_whole


@pytest.mark.parametrize("text", [b"", b"{}", b'{"record": {"n": 1, "sha256": "0"}, "signature": "AAAA"}'])
def test_a_head_that_is_not_the_nodes_is_found(written: Path, tmp_path: Path, text: bytes) -> None:
    folder = shutil.copytree(written, tmp_path / "log")
    (folder / HEAD).write_bytes(text)
    assert verify_log(folder, PUBLIC).where == HEAD
    append_is_refused(folder)
    (folder / HEAD).unlink()
    assert "missing" in verify_log(folder, PUBLIC).fault
    append_is_refused(folder)  # it would make a new head, and hide what was cut


def append_is_refused(folder: Path) -> None:
    with pytest.raises(TrustError) as caught:
        AuditLog(folder, KEY).append(entry())
    assert caught.value.code is ReasonCode.AUDIT_LOG


def test_a_history_written_anew_with_another_key_is_found_at_its_first_line(tmp_path: Path) -> None:
    forged = AuditLog(tmp_path / "log", ec.generate_private_key(ec.SECP384R1()))
    forged.append(entry())
    verdict = verify_log(tmp_path / "log", PUBLIC)
    assert not verdict.is_whole
    assert verdict.lines == 0


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(torn=st.binary(min_size=1, max_size=300) | st.integers(1, 10**6))
@example(torn=b"\n")
@example(torn=b"{}\n\n")
def test_a_line_torn_by_a_power_cut_is_told_from_tampering(
    written: Path, tmp_path_factory: pytest.TempPathFactory, torn: bytes | int
) -> None:
    folder = shutil.copytree(written, tmp_path_factory.mktemp("torn") / "log")
    if isinstance(torn, int):  # the beginning of a true line
        other = shutil.copytree(folder, folder.with_name("other"))
        AuditLog(other, KEY).append(entry(8))
        line = other.joinpath(NEWEST).read_bytes().splitlines()[-1]
        torn = line[: 1 + torn % (len(line) - 1)]
    with (folder / NEWEST).open("ab") as handle:
        handle.write(torn)
    before = verify_log(folder, PUBLIC)
    assert before.is_whole
    assert before.lines == LINES
    AuditLog(folder, KEY).append(entry(8))
    after = verify_log(folder, PUBLIC)
    assert after.is_whole
    lines = list(read_lines(folder))
    assert [line.kind for line in lines[LINES:]] == [AuditKind.RECOVERED, AuditKind.TRAIN]
    assert after.torn == 1
    with (folder / NEWEST).open("rb") as handle:
        assert torn in handle.read()


def test_a_power_cut_that_left_an_empty_file_leaves_no_line(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "log")
    (folder / NEWEST).rename(folder / "audit-999999999.jsonl")
    (folder / NEWEST).touch()
    AuditLog(folder, KEY).append(entry(8))
    verdict = verify_log(folder, PUBLIC)
    assert (verdict.lines, verdict.fault, verdict.torn) == (LINES + 1, "", 0)


def test_a_power_cut_in_the_first_line_of_a_file_costs_no_file(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", lines=3)
    first = (folder / NEWEST).read_bytes()
    (folder / NEWEST).rename(folder / "audit-000000001.jsonl")
    (folder / NEWEST).write_bytes(first[:40])
    write_log(folder, lines=12)
    verdict = verify_log(folder, PUBLIC)
    assert (verdict.fault, verdict.lines, verdict.torn) == ("", 3 + 1 + 12, 1)


def test_a_power_cut_between_a_line_and_its_head_loses_nothing(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "log")
    head = (folder / HEAD).read_bytes()
    AuditLog(folder, KEY).append(entry(8))
    (folder / HEAD).write_bytes(head)
    assert verify_log(folder, PUBLIC).lines == LINES + 1
    AuditLog(folder, KEY).append(entry(9))
    assert verify_log(folder, PUBLIC).lines == LINES + 2


def append_many(folder: str, key: str, count: int) -> None:
    log = AuditLog(Path(folder), load_node_key(Path(key)), segment_bytes=4000)
    for number in range(count):
        log.append(entry(number))


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    make_node_key(tmp_path / "north")
    folder = tmp_path / "log"
    workers = [get_context("fork").Process(target=append_many, args=(str(folder), str(tmp_path / "north"), 15)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    verdict = verify_log(folder, load_node_key(tmp_path / "north").public_key())
    assert verdict.is_whole
    assert verdict.lines == 30


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "log", KEY)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TrustError, match="No space left") as caught:
        log.append(entry())
    assert caught.value.code is ReasonCode.AUDIT_LOG


def test_answers_of_a_day_are_counted_over_files(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "log")
    log = AuditLog(folder, KEY)
    log.append(entry().model_copy(update={"outcome": AuditOutcome.REFUSED}))
    log.append(entry().model_copy(update={"kind": AuditKind.EVALUATE}))
    now = datetime.now(UTC)
    assert log.count_answered(AuditKind.TRAIN, since=now - timedelta(hours=1)) == LINES
    assert log.count_answered(AuditKind.TRAIN, since=now + timedelta(hours=1)) == 0
