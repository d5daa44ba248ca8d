"""Sagas to read and to run. Each folder stands alone; each is a test."""
