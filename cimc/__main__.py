"""`python -m cimc` is `cimc`."""

from cimc.commands.main import main

main()
