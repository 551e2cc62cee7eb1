"""app/telemetry/llm copied alone: one folder, prometheus_client, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from app.telemetry import llm as telemetry

ALONE = """
import sys
before = set(sys.modules)
import llm
from prometheus_client import generate_latest

llm.configure({"mine": ["small"]}, {("mine", "small"): llm.Price(1, 2)})
with llm.track_call("mine", "small", prompt="four") as call:
    call.record({"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "choices": [{"finish_reason": "stop"}]})
llm.track_tokens(5, 6, "mine", "unheard of")
sys.stdout.write(generate_latest().decode())
sys.stderr.write(" ".join({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""


def test_copied_alone(tmp_path: Path) -> None:
    """One folder, prometheus_client, nothing else."""
    shutil.copytree(Path(telemetry.__file__).parent, tmp_path / "llm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "service.py").write_text(ALONE)
    done = subprocess.run([sys.executable, "service.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.split()) == {"llm", "prometheus_client"}
    for line in (
        'llm_tokens_total{model="small",provider="mine",type="input"} 3.0',
        'llm_tokens_total{model="other",provider="mine",type="output"} 6.0',
        'llm_cost_usd_total{model="small",provider="mine"} 1.1e-05',
        'llm_prompt_length_characters_max{model="small",provider="mine"} 4.0',
        'llm_unpriced_requests_total{model="other",provider="mine"} 1.0',
    ):
        assert line in done.stdout.splitlines()
