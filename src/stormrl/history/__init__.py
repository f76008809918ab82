"""History: what a run tells of itself while it trains."""
