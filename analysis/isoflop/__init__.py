"""IsoFLOP analysis: valleys, their frontier, the envelope of training curves."""
