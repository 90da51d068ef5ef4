"""The gallery: a card of every rule, from its class; its page is up to date, and what stands on it runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from rlweights import rules
from rlweights.weights import gallery
from rlweights.weights.interventions import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")
STUDIES = Path(__file__).parents[2] / "docs" / "studies"
SETTINGS = ("1.5", "0.1", "0.3")
"""Numbers in sentences about evidence that are settings of rules and rivals."""


def test_the_page_is_what_the_classes_say():
    assert gallery.page(rules.costs(), rules.pictures()) == PAGE, "run `python -m rlweights.rules --page`"


def test_every_rule_has_a_card_with_everything():
    assert sorted(name for names in gallery.SUBJECTS.values() for name in names) == sorted(RULES)
    for name in RULES:
        card = gallery.Card(name)
        assert type(card.made()) is RULES[name]
        assert card.rule.when.endswith("."), name
        assert len(card.equation) >= 15, name
        assert name == "increment" or "http" in card.source, name


def test_evidence_is_what_the_tables_of_studies_say():
    for rule in RULES.values():
        for study, found in rule.evidence:
            table = (STUDIES / study / "table.md").read_text(encoding="utf-8")
            figures = re.findall(r"\d,\d{3}|\d+\.\d+", found)
            assert figures, found
            missing = [each for each in figures if each not in table and each not in SETTINGS]
            assert not missing, f"{rule.__name__}: {missing} stand not in the table of {study}"


@pytest.mark.parametrize("name", RULES)
def test_the_example_of_an_agent_file_is_that_of_python(name):
    card = gallery.Card(name)
    (table,) = tomllib.loads(card.toml)["interventions"]
    assert table.pop("rule") == name
    assert repr(RULES[name](**table)) == repr(card.made())


@pytest.mark.filterwarnings("ignore:Even though the")  # of data, which are no graphs here either way
def test_every_block_of_the_page_runs():
    """In one program, without graphs, which take their time and are tested elsewhere."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == len(RULES) + 1
    namespace: dict[str, Any] = {}
    tf.config.run_functions_eagerly(True)
    try:
        for block in blocks:
            exec(block, namespace)
            namespace["x"], namespace["y"] = namespace["x"][:32], namespace["y"][:32]
    finally:
        tf.config.run_functions_eagerly(False)
