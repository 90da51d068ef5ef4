"""The page of a diagnosis: whole without the net, and nothing of a run's texts is markup."""

import re
import shutil

import pytest

from rlweights.errors import ConfigError
from rlweights.running.diagnosis.judgement import judge
from rlweights.running.diagnosis.page import write_page
from rlweights.running.diagnosis.record import RunRecord
from support.smallruns import small_run


def test_the_page_is_whole(tmp_path):
    run = shutil.copytree(small_run(), tmp_path / "run")
    agent = (run / "agent.toml").read_text()
    (run / "agent.toml").write_text(agent.replace('description = "', 'description = "<script>', 1))
    record = RunRecord.of(run)
    write_page(tmp_path / "page.html", [record], [judge(record)])
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="', page)
    assert page.count("<svg") == page.count("</svg>") >= 3
    assert 'aria-label="train/approx_kl"' in page
    with pytest.raises(ConfigError, match=r"--html .*cannot be written"):
        write_page(tmp_path / "none" / "page.html", [record], [judge(record)])
