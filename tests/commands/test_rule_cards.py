"""`rlweights rules`: the list, one card, and a name that is none."""

from support.commandline import refused


def test_the_list_a_card_and_a_typing_error(rlweights):
    code, listed, _ = rlweights("rules")
    assert code == 0
    assert "hare_and_tortoise" in listed
    _, card, _ = rlweights("rules", "spectral-norm")
    assert "Miyato" in card
    assert 'rule = "spectral_norm"' in card
    wrong = refused(rlweights("rules", "prunning"))
    assert "there is no rule 'prunning'. Did you mean 'pruning'?" in wrong
