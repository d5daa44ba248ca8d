"""Place-order runs end to end on private real servers, beside a pipeline with no engine in it."""
