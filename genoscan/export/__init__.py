"""Export of tracks as HTML pages, files for genome browsers and input files for other tools."""
