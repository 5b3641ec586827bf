"""The network: attention, mixture-of-experts layers, and the Transformer made of them."""
