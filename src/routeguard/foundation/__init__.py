"""What features stand on: stores, mail, HTTP answers, signatures. Knows of no feature."""
