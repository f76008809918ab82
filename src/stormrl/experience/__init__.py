"""Experience: replay, its store on disk, recorded episodes."""
