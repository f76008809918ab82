"""The commands of `stormrl`: each module has its flags and a `main(args)` that runs it."""
