"""`python -m cimc` is `cimc`."""

from cimc.commands import signals


def main() -> None:
    """Entry point: as `cimc.commands.main.main`; an interrupt is status 130, from before the other imports on."""
    signals.listen()
    from cimc.commands.main import main as run

    run()


if __name__ == "__main__":
    main()
