"""At the screen: a page to paint on, a report to look through, a sheet of pictures.

    studio    what the page of `semedit paint` asks for: edits in memory, and saving them
    server    who may ask, and how: one token, one host, one origin, small requests
    holdings  what a workspace has of each face: pictures, figures, what failed
    report    holdings -> HTML files that need nothing beside them
    sheet     holdings -> one PNG or PDF

`paint` and `report` take the extra semedit[web]; `sheet` does not.
"""
