"""What every package uses: files, configurations, progress, processes, HTML pages, seeds."""
