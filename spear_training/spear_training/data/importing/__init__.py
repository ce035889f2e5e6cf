"""From readers to episode files and stores: what import_episodes does."""
