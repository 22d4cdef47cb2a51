"""How runs and plans are shown. Every view is fed events, or the state that they fold into."""
