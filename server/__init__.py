"""The coordinator. An application package: only tests, Flower and gmmas_cli import it."""
