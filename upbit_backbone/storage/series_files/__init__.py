"""Files that hold one series with its proof: CSV and Parquet, out of the store and into it."""
