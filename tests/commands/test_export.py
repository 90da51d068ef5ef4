"""`rlweights export`: it writes, says so, and overwrites nothing."""

from support.commandline import refused


def test_export_writes_and_says_so(rlweights, run, tmp_path):
    target = tmp_path / "policy.tflite"
    code, output, error = rlweights("export", run, target)
    assert (code, error) == (0, "")
    assert output == f"wrote {target}: acts as {run / 'best' / 'weights.safetensors'} does\n"
    assert target.read_bytes()[4:8] == b"TFL3"
    assert "exists already" in refused(rlweights("export", run, target))
