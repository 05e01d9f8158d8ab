"""``python -m tillstream``."""

from tillstream.app import main

main()
