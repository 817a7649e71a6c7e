"""The ledger: what every attempt cost, kept in SQLite. No other part of Lumen knows that it is SQLite."""
