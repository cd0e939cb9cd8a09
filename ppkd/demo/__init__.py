"""The demo: generated data, a student taught and untaught, a table and a picture."""
