"""What people see: tables in notebooks, figures, how far work is."""
