"""Archives that a checksum does not show to be damaged: their parts already were when they were written."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from ops import archive
from ops.errors import OpsError

BLOCK = tarfile.BLOCKSIZE
SECOND = 2 * BLOCK  # where the second header is: behind the first and its content


def tar_of(*names: str) -> bytes:
    """A tar file of small files, each a header and one block."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 5
            tar.addfile(member, io.BytesIO(b"words"))
    return file.getvalue()


WHOLE = tar_of("first", "second")


def written(folder: Path, prometheus: bytes) -> Path:
    work = folder / "work"
    work.mkdir()
    (work / "prometheus.tar").write_bytes(prometheus)
    (work / archive.DUMP).write_bytes(b"PGDMP")
    made = folder / "sightline-test.tar"
    archive.write(made, work, datetime(2026, 1, 1), "native", {})
    return made


def test_a_whole_archive_is_opened(tmp_path: Path) -> None:
    with archive.opened(written(tmp_path, WHOLE), tmp_path) as (tar, manifest):
        assert set(tar.getnames()) == {archive.MANIFEST, *manifest["parts"]}
        assert archive.part(tar, "prometheus.tar").read() == WHOLE


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda tar: tar[:SECOND] + b"?" + tar[SECOND + 1 :], id="a broken second header"),
        pytest.param(lambda tar: tar[: SECOND + 1], id="cut in the second header"),
        pytest.param(lambda tar: tar[:SECOND], id="cut before the second header"),
        pytest.param(lambda tar: tar[: SECOND + BLOCK], id="cut behind the second header"),
        pytest.param(lambda tar: tar[: SECOND + 2 * BLOCK], id="no end"),
        pytest.param(lambda tar: tar[:1], id="cut in the first header"),
        pytest.param(lambda tar: b"", id="empty"),
    ],
)
def test_a_part_that_is_no_whole_tar_file_is_found(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    made = written(tmp_path, damage(WHOLE))
    with pytest.raises(OpsError, match="is damaged, or not a backup"), archive.opened(made, tmp_path):
        pass


@pytest.mark.parametrize("at", [0, 1])
def test_an_archive_whose_own_headers_are_damaged_is_found(tmp_path: Path, at: int) -> None:
    """Whichever part's header it is; the last is prometheus.tar."""
    made = written(tmp_path, WHOLE)
    with tarfile.open(made) as tar:
        spot = tar.getmembers()[1 + at].offset
    content = bytearray(made.read_bytes())
    content[spot] ^= 1
    made.write_bytes(content)
    with pytest.raises(OpsError, match="is damaged, or not a backup"), archive.opened(made, tmp_path):
        pass
