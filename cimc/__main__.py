"""`python -m cimc` is `cimc`."""

from cimc.cli import main

main()
