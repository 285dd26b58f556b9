"""Version 1 of Wattle's protocols. Generated from the .proto files beside it by `make proto`."""
