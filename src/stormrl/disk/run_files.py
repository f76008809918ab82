"""Names of the files in which a run tells of itself (docs/architecture.md)."""

METRICS = "metrics.jsonl"
EPISODES = "episodes.jsonl"
SCORES = "scores.jsonl"
DIAGNOSES = "diagnosis.jsonl"
FAILURE = "failure.txt"
