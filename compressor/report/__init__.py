"""Records as tables, and progress on the terminal. No torch here."""
