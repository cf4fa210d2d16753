"""The live path: networks trained on pictures, with what is frozen in them taken from the store where that is asked."""
