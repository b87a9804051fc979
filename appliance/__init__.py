"""The market data appliance."""
