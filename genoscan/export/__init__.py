"""Export of tracks: HTML pages, files for genome browsers and input for other tools."""
