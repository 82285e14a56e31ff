"""The smallest or cheapest fleet that keeps what users were promised."""
