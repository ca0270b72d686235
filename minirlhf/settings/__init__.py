"""What `params.yaml` may hold: typed settings, a file a section, checked whole before anything is loaded. No torch."""
