"""The commands of ``upbit-backbone``, a module for each group of them."""
