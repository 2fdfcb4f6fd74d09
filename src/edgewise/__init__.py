"""Edgewise runs AI on fleets of edge devices and keeps it healthy."""
