"""What a name stands for: a folder, or a repository of the hub; found, downloaded, checked, fingerprinted."""
