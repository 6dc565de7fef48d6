"""MONAI Label's own command where ``guard.asgi:app`` can be found: what `start.py` runs as a process of its own."""

from monailabel.main import Main

if __name__ == "__main__":
    Main().run()
