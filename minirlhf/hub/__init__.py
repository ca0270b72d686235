"""What a name stands for: a folder, a repository of the hub, a function, an endpoint; found, checked, fingerprinted."""
