"""The docks of napari and what lies behind them."""
