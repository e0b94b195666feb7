"""Errors of the quotation endpoints: status, name and message (upbit-api, section 6)."""

INVALID = (400, 400, "Invalid parameter. Check the given value!")
MISMATCH = (400, 400, "Type mismatch error. Check the parameters type!")
MISSING = (400, 400, "Missing request parameter error. Check the required parameters!")
NOT_FOUND = (404, 404, "Code not found")
NO_ROUTE = (404, "not_found", "no Route matched with those values")
