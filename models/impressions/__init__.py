"""Learning from impressions: what was shown where, and what became of it.

pages = Pages.from_tables(slates, events, items)       # arrays, a row a page
x_RKF, names = columns(pages, ...)                     # what is known of each slot before it is shown
model, curves = train(pages, x_RKF, ...)               # p(click), p(cart | click), p(buy | click)
"""
