"""What is known of providers and their models: presets, capabilities, prices, context windows."""
