"""Pure codecs, fed bytes."""
