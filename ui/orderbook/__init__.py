"""What happens at the market on the chart: its trades."""
