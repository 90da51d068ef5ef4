"""What is wrong with a run, judged by what it has recorded: symptoms, judgement, page."""
